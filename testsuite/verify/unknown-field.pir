planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = unary{kind=exp, speed=9} v0 : f32[2]   ; error: text-malformed no field `speed`
  return v1
}
