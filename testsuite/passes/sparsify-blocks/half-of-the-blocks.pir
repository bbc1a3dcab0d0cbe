; run: sparsify-blocks{block=1x2,sparsity=0.5,first=true}
; expect: metric blocks-zeroed == 2
; expect: remark blocks-done
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,4] [0.1, 0.2, 3.0, -2.0, 0.3, -4.0, 0.1, 0.1]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,4] @"fc"
  return v2 "y"
}
