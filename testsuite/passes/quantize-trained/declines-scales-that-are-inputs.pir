; run: quantize-trained
; expect: ops fake-quantize == 1
; expect: remark quantize-skipped left alone, its scales are no constant
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "s": f32[]) {
  v2 = fake-quantize{bits=8, signed=true, axis=0, batch=false} v0, v1 : f32[2,3]
  return v2 "y"
}
