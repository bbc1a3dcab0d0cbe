; run: prune-magnitude{sparsity=0.5,first=true}
; expect: remark prune-skipped no constant
planish-ir 1
graph @"main"(v0 "x": f32[3,2], v1 "w": f32[2,2]) {
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"fc"
  return v2 "y"
}
