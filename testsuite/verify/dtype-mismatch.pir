planish-ir 1
graph @"main"(v0 "x": f32[2], v1 "y": f64[2]) {
  v2 = binary{kind=mul} v0, v1 : f32[2]   ; error: dtype-mismatch one dtype
  return v2
}
