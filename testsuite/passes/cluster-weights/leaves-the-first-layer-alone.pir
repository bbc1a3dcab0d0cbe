; run: cluster-weights{bits=1,init=density}
; expect: metric tensors-clustered == 1
; expect: remark cluster-skipped fc: left alone, it is the first layer
; expect: ops gather == 1
; expect: metric bytes-dense == 32
planish-ir 1
graph @"main"(v0 "x": f32[1,2]) {
  v1 = const f32[2,2] [0.0, 1.0, 0.5, -2.0]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[1,2] @"fc"
  v3 = const f32[2,2] [0.5, 1.5, -1.0, 0.0]
  v4 = matmul{trans_a=false, trans_b=false} v2, v3 : f32[1,2] @"fc2"
  return v4 "y"
}
