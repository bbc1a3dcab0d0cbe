planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = binary{kind=add} v0, v9 : f32[2]   ; error: text-malformed
  return v1
}
