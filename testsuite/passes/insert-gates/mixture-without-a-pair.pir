; run: insert-gates{kind=mixture}
; expect: remark gate-skipped no pair of matrix products
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[6,2]) {
  v1 = const f32[2,4] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[6,4]
  return v2 "y"
}
