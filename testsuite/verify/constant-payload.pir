planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = const f32[3] [1.0, 2.0]   ; error: text-malformed is no constant
  return v1
}
