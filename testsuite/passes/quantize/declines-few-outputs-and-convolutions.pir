; run: quantize{mode=dynamic,first=true}
; expect: no remark quantize-done
; expect: remark quantize-skipped fewer than 16
; expect: remark quantize-skipped ranges from samples
planish-ir 1
graph @"main"(v0 "x": f32[3,16], v1 "i": f32[1,2,1,1]) {
  v2 = const f32[16,2] [-0.731, 0.695, 0.528, -0.490, -0.009, -0.101, 0.303, 0.577, -0.812, -0.943, 0.672, -0.134, 0.525, -0.996, -0.109, 0.443, -0.542, 0.891, 0.803, -0.939, -0.949, 0.083, 0.878, -0.238, -0.567, -0.156, -0.942, -0.557, -0.124, -0.008, -0.534, -0.538]
  v3 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[3,2] @"fc"
  v4 = const f32[16,2,1,1] [-0.731, 0.695, 0.528, -0.490, -0.009, -0.101, 0.303, 0.577, -0.812, -0.943, 0.672, -0.134, 0.525, -0.996, -0.109, 0.443, -0.542, 0.891, 0.803, -0.939, -0.949, 0.083, 0.878, -0.238, -0.567, -0.156, -0.942, -0.557, -0.124, -0.008, -0.534, -0.538]
  v5 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v1, v4 : f32[1,16,1,1] @"conv"
  return v3 "y", v5 "z"
}
