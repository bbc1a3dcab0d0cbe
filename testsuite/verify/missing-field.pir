planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = cast{to=f16} v0 : f16[2]   ; error: text-malformed field `saturate` is missing
  return v1
}
