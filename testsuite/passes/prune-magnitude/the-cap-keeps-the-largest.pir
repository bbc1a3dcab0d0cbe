; run: prune-magnitude{sparsity=0.5,scope=global,cap=0.75,first=true}
; expect: metric tensors-capped == 1
; expect: metric weights-zeroed == 3
; expect: remark prune-done no more than cap=0.75
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,2] [0.1, -0.3, 0.2, 0.25]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"small"
  v3 = const f32[2,2] [1.5, -3.0, 2.0, 4.0]
  v4 = matmul{trans_a=false, trans_b=false} v2, v3 : f32[3,2] @"large"
  return v4 "y"
}
