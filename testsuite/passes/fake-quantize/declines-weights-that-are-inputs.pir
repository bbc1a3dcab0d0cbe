; run: fake-quantize{first=true}
; expect: ops fake-quantize == 0
; expect: remark quantize-skipped fc: its weights are no constant
planish-ir 1
graph @"main"(v0 "x": f32[3,2], v1 "w": f32[2,16]) {
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,16] @"fc"
  return v2 "y"
}
