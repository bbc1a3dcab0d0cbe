; run: grad{recompute=0}
; expect: metric kept-bytes == 0
; expect: metric nodes-recomputed == 0
; expect: no remark recompute-limited
; expect: ops barrier == 0
planish-ir 1
sym n 1..
graph @"main"(v0 "x": f32[n,4]) {
  v1 = unary{kind=tanh} v0 : f32[n,4]
  v2 = unary{kind=exp} v1 : f32[n,4]
  return v2 "y"
}
