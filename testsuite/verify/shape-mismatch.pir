planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "y": f32[4]) {
  v2 = binary{kind=mul} v0, v1 : f32[2,3]   ; error: shape-mismatch axes of size 3 and 4
  return v2
}
