; run: sparsify-blocks{block=1x2,threshold=1.0,score=max,cap=0.5,first=true}
; expect: metric tensors-capped == 1
; expect: metric blocks-zeroed == 1
; expect: remark blocks-done no more than cap=0.5
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,2] [0.1, -0.3, 0.2, 0.25]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"fc"
  return v2 "y"
}
