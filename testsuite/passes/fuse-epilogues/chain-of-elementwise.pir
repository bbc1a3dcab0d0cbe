; run: fuse-epilogues,eliminate-dead
planish-ir 1
graph @"main"(v0 "x": f32[8], v1 "y": f32[8]) {
  v2 = unary{kind=exp} v0 : f32[8]
  v3 = binary{kind=add} v2, v1 : f32[8]
  v4 = unary{kind=tanh} v3 : f32[8]
  return v4 "z"
}
