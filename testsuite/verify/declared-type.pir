planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = unary{kind=exp} v0 : f32[3]   ; error: type-mismatch declared f32[3], inferred f32[2]
  return v1
}
