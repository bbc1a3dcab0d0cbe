planish-ir 9   ; error: text-malformed version 9
graph @"main"(v0 "x": f32[2]) {
  return v0
}
