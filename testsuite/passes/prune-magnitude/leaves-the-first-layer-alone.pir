; run: prune-magnitude{sparsity=0.5}
; expect: remark prune-skipped first
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,2] [0.1, -3.0, 2.0, 0.2]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"one"
  v3 = const f32[2,2] [4.0, 0.5, 0.25, 1.0]
  v4 = matmul{trans_a=false, trans_b=false} v2, v3 : f32[3,2] @"two"
  return v4 "y"
}
