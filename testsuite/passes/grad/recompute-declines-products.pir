; run: grad{recompute=0}
; expect: metric kept-bytes == 64
; expect: metric kept-bytes-before == 64
; expect: metric nodes-recomputed == 0
; expect: remark recompute-limited 64 bytes
; expect: ops barrier == 0
planish-ir 1
graph @"main"(v0 "x": f32[4,4], v1 "w": f32[4,4]) {
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[4,4]
  v3 = matmul{trans_a=false, trans_b=false} v2, v2 : f32[4,4]
  return v3 "y"
}
