; run: quantize-trained
; expect: ops fake-quantize == 1
; expect: remark quantize-skipped left alone, its values are no f32
planish-ir 1
graph @"main"(v0 "x": f16[2,3]) {
  v1 = const f16[] [0.25]
  v2 = fake-quantize{bits=8, signed=true, axis=0, batch=false} v0, v1 : f16[2,3]
  return v2 "y"
}
