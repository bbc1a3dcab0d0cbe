; run: detect-sparsity
; expect: no remark sparse-chosen
; expect: remark sparse-declined
planish-ir 1
graph @"main"(v0 "x": f32[3,4], v1 "i": i64[2]) {
  v2 = const f32[4,16] splat 0x00000000
  v3 = const f32[4,16] [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
  v4 = matmul{trans_a=false, trans_b=false} v0, v3 : f32[3,16] @"fc"
  v5 = gather{axis=0} v3, v1 : f32[2,16] @"table"
  v6 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[3,16] @"zeros"
  return v4 "y", v5 "z", v6 "u"
}
