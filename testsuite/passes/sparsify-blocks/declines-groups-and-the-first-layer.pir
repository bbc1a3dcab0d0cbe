; run: sparsify-blocks{sparsity=0.5}
; expect: remark blocks-skipped
planish-ir 1
graph @"main"(v0 "i": f32[1,2,2,2]) {
  v1 = const f32[2,2,1,1] [0.1, 0.2, 3.0, 0.1]
  v2 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v0, v1 : f32[1,2,2,2] @"stem"
  v3 = const f32[2,1,1,1] [0.1, 0.2]
  v4 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=2} v2, v3 : f32[1,2,2,2] @"depthwise"
  return v4 "y"
}
