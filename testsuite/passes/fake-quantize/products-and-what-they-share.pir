; run: fake-quantize{bits=4,first=true}
; expect: metric weights-rounded == 2
; expect: metric operands-rounded == 1
; expect: ops fake-quantize == 3
; expect: ops matmul == 2
; expect: remark quantize-done fc: weights of 4 bits, signal to noise
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = unary{kind=sign} v0 : f32[3,2]
  v2 "w" = const f32[2,16] [-0.731, 0.695, 0.528, -0.490, -0.009, -0.101, 0.303, 0.577, -0.812, -0.943, 0.672, -0.134, 0.525, -0.996, -0.109, 0.443, -0.542, 0.891, 0.803, -0.939, -0.949, 0.083, 0.878, -0.238, -0.567, -0.156, -0.942, -0.557, -0.124, -0.008, -0.534, -0.538]
  v3 = matmul{trans_a=false, trans_b=false} v1, v2 : f32[3,16] @"fc"
  v4 = const f32[16,2] [-0.731, 0.695, 0.528, -0.490, -0.009, -0.101, 0.303, 0.577, -0.812, -0.943, 0.672, -0.134, 0.525, -0.996, -0.109, 0.443, -0.542, 0.891, 0.803, -0.939, -0.949, 0.083, 0.878, -0.238, -0.567, -0.156, -0.942, -0.557, -0.124, -0.008, -0.534, -0.538]
  v5 = matmul{trans_a=false, trans_b=true} v1, v4 : f32[3,16] @"fc2"
  return v3 "y", v5 "z"
}
