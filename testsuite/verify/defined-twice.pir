planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = unary{kind=exp} v0 : f32[2]
  v1 = unary{kind=exp} v0 : f32[2]   ; error: text-malformed v1 is defined twice
  return v1
}
