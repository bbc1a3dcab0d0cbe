; run: prune-magnitude{sparsity=0.5,first=true}
; expect: metric weights-zeroed == 2
; expect: remark prune-done
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,2] [0.1, -3.0, 2.0, 0.2]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"fc"
  return v2 "y"
}
