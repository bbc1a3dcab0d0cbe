; run: fold-batch-norm
; expect: ops binary == 1
; expect: no remark batch-norm-kept
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,2] [1.0, 2.0, 3.0, 4.0]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2]
  v3 = const f32[2] [0.5, 2.0]
  v4 = binary{kind=div} v3, v2 : f32[3,2]
  return v4 "y", v2 "z"
}
