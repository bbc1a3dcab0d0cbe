; run: fold-constants,eliminate-dead
; expect: ops shape == 0
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = shape{start=0, end=none} v0 : i64[2]
  v2 = const i64[1] [-1]
  v3 = reshape{allow_zero=false} v0, v2 : f32[6]
  return v3 "y", v1 "dims"
}
