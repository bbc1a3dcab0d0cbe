; run: quantize-trained
; expect: metric values-quantized == 1
; expect: ops binary == 2
; expect: ops quantize == 1
planish-ir 1
graph @"main"(v0 "x": f32[2,3,2]) {
  v1 = const f32[3] [0.25, 0.5, 1.0]
  v2 = fake-quantize{bits=3, signed=true, axis=1, batch=true} v0, v1 : f32[2,3,2]
  return v2 "y"
}
