planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1, v2 = unary{kind=exp} v0 : f32[2]   ; error: text-malformed 1 results, not 2
  return v1
}
