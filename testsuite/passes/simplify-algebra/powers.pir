; run: simplify-algebra
planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = const f32[] [2.0]
  v2 = binary{kind=pow} v0, v1 : f32[2]
  return v2 "y"
}
