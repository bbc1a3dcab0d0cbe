; run: insert-gates{quantile=0.9,first=true}
; expect: remark gate-skipped 4 x 16 weights would take
; expect: remark gate-skipped 5 rows or more; blocks are left out of 4 at most
; expect: remark gate-skipped no constant matrix
; expect: remark gate-skipped only matrix products
; expect: remark gate-skipped in a region
; expect: ops gated-matmul == 0
planish-ir 1
graph @"main"(v0 "x": f32[1,4], v1 "r": f32[5,256], v2 "w": f32[256,256], v3 "i": f32[1,1,8,8], v4 "c": bool[]) {
  v10 = const f32[4,16] splat 0x0000803f
  v11 = matmul{trans_a=false, trans_b=false} v0, v10 : f32[1,16] @"small"
  v12 = const f32[256,256] splat 0x0000803f
  v13 = matmul{trans_a=false, trans_b=false} v1, v12 : f32[5,256] @"rows"
  v14 = matmul{trans_a=false, trans_b=false} v13, v2 : f32[5,256] @"free"
  v15 = const f32[1,1,3,3] splat 0x0000803f
  v16 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v3, v15 : f32[1,1,6,6] @"conv"
  v17 = if v4, v0 (v18: f32[1,4]) {
    v19 = const f32[4,4] splat 0x0000803f
    v20 = matmul{trans_a=false, trans_b=false} v18, v19 : f32[1,4] @"inner"
    yield v20
  } (v21: f32[1,4]) {
    yield v21
  } : f32[1,4]
  return v11 "a", v14 "b", v16 "c", v17 "d"
}
