; run: insert-gates{kind=mixture,experts=2,active=1,hidden=3,router=biased}
; expect: metric layers-gated == 1
; expect: ops top-k == 1
; expect: ops random == 1
; expect: ops matmul == 5
; expect: remark gate-done 2 experts of 3 hidden units, 1 for a row
planish-ir 1
graph @"main"(v0 "x": f32[6,2]) {
  v1 "w" = const f32[2,4] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1]
  v2 "b" = const f32[4] [-0.5, -0.1, 0.3, -0.4]
  v3 = const f32[4,2] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1]
  v4 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[6,4] @"up"
  v5 = binary{kind=add} v4, v2 : f32[6,4]
  v6 = unary{kind=relu} v5 : f32[6,4]
  v7 = matmul{trans_a=false, trans_b=false} v6, v3 : f32[6,2] @"down"
  return v7 "y"
}
