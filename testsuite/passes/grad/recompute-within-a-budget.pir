; run: grad{recompute=600},merge-duplicates,eliminate-dead
; expect: metric kept-bytes-before == 640
; expect: metric kept-bytes <= 600
; expect: metric nodes-recomputed >= 1
; expect: no remark recompute-limited
; expect: ops barrier >= 1
; expect: ops matmul == 6
planish-ir 1
graph @"main"(v0 "x": f32[4,8], v1 "w": f32[8,8], v2 "u": f32[8,8]) {
  v3 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[4,8]
  v4 = unary{kind=gelu} v3 : f32[4,8]
  v5 = binary{kind=add} v4, v0 : f32[4,8]
  v6 = matmul{trans_a=false, trans_b=false} v5, v2 : f32[4,8]
  v7 = unary{kind=tanh} v6 : f32[4,8]
  v8 = binary{kind=mul} v7, v7 : f32[4,8]
  v9 = unary{kind=exp} v8 : f32[4,8]
  v10 = reduce{kind=sum, axes=none, keepdims=false, noop_empty=false} v9 : f32[]
  return v10 "loss"
}
