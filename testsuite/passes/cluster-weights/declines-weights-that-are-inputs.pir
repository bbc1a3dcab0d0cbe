; run: cluster-weights{bits=1,first=true}
; expect: ops gather == 0
; expect: remark cluster-skipped its weights are no constant
planish-ir 1
graph @"main"(v0 "x": f32[1,2], v1 "w": f32[2,2]) {
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[1,2] @"fc"
  return v2 "y"
}
