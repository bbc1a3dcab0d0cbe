; run: fake-quantize{first=true}
; expect: ops fake-quantize == 0
; expect: remark quantize-skipped fc: left alone, it has 2 outputs, fewer than 16
planish-ir 1
graph @"main"(v0 "x": f32[3,16]) {
  v1 = const f32[16,2] [-0.731, 0.695, 0.528, -0.490, -0.009, -0.101, 0.303, 0.577, -0.812, -0.943, 0.672, -0.134, 0.525, -0.996, -0.109, 0.443, -0.542, 0.891, 0.803, -0.939, -0.949, 0.083, 0.878, -0.238, -0.567, -0.156, -0.942, -0.557, -0.124, -0.008, -0.534, -0.538]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"fc"
  return v2 "y"
}
