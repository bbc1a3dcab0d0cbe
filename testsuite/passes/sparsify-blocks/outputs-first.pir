; run: sparsify-blocks{block=1x2,score=max,threshold=1,first=true}
; expect: metric blocks-zeroed == 4
planish-ir 1
graph @"main"(v0 "x": f32[3,2], v1 "i": f32[1,2,2,2]) {
  v2 = const f32[4,2] [0.1, 3.0, 0.2, 0.5, -0.3, 0.1, 2.0, 0.1]
  v3 = matmul{trans_a=false, trans_b=true} v0, v2 : f32[3,4] @"fc"
  v4 = const f32[2,2,1,2] [0.1, 0.2, 3.0, 0.1, 5.0, 0.4, 0.1, 0.2]
  v5 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v1, v4 : f32[1,2,2,1] @"conv"
  return v3 "y", v5 "z"
}
