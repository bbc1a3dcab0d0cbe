; run: detect-sparsity
; expect: no remark sparse-chosen
; expect: remark sparse-declined
planish-ir 1
graph @"main"(v0 "x": f32[3,4]) {
  v1 = const f32[4,16] [1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0, 0.0, 2.0, 0.0, 4.0, 0.0, 6.0, 0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0, 0.0, 2.0, 0.0, 4.0, 0.0, 6.0, 0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0, 0.0, 2.0, 0.0, 4.0, 0.0, 6.0, 0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0, 0.0, 2.0, 0.0, 4.0, 0.0, 6.0, 0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0, 0.0]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,16] @"fc"
  return v2 "y"
}
