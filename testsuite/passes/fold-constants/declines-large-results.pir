; run: fold-constants{max-bytes=64}
; expect: remark fold-too-large
; expect: ops tile == 1
planish-ir 1
graph @"main"(v0 "x": f32[200]) {
  v1 = const f32[2] [1.0, 2.0]
  v2 = const i64[1] [100]
  v3 = tile v1, v2 : f32[200]
  v4 = binary{kind=add} v0, v3 : f32[200]
  return v4 "y"
}
