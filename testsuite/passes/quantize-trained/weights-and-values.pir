; run: quantize-trained
; expect: metric values-quantized == 2
; expect: ops fake-quantize == 0
; expect: ops quantize == 1
; expect: ops dequantize == 2
planish-ir 1
graph @"main"(v0 "x": f32[1,2]) {
  v1 = const f32[] [0.25]
  v2 = fake-quantize{bits=8, signed=false, axis=0, batch=true} v0, v1 : f32[1,2]
  v3 "w" = const f32[2,2] [0.6, -3.0, 100.0, -0.25]
  v4 "w.scale" = const f32[2] [0.5, -0.125]
  v5 = fake-quantize{bits=8, signed=true, axis=1, batch=false} v3, v4 : f32[2,2]
  v6 = matmul{trans_a=false, trans_b=false} v2, v5 : f32[1,2] @"fc"
  return v6 "y"
}
