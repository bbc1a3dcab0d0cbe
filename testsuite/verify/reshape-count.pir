planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = const i64[2] [4, 2]
  v2 = reshape{allow_zero=false} v0, v1 : f32[4,2]   ; error: shape-mismatch 6 elements cannot become 8
  return v2
}
