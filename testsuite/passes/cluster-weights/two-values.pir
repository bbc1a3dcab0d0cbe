; run: cluster-weights{bits=1,first=true}
; expect: metric tensors-clustered == 1
; expect: metric weights-kept == 3
; expect: ops gather == 1
; expect: remark cluster-done fc: 3 of 4 weights share 2 values
planish-ir 1
graph @"main"(v0 "x": f32[1,2]) {
  v1 "w" = const f32[2,2] [0.0, 1.25, 0.75, -2.0]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[1,2] @"fc"
  return v2 "y"
}
