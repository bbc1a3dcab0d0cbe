; run: fuse-epilogues,eliminate-dead
planish-ir 1
graph @"main"(v0 "x": f32[8]) {
  v1 = unary{kind=exp} v0 : f32[8]
  v2 = unary{kind=tanh} v1 : f32[8]
  return v2 "z", v1 "y"
}
