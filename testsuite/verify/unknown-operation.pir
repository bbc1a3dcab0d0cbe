planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = frobnicate v0 : f32[2]   ; error: text-malformed no operation is called `frobnicate`
  return v1
}
