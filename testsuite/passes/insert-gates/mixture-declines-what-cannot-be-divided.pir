; run: insert-gates{kind=mixture,experts=3,active=1}
; run: insert-gates{kind=mixture,experts=2,active=1,hidden=9,start=copy}
; run: insert-gates{kind=mixture,experts=2,active=1,exclude=down}
; expect: ops top-k == 0
; expect: remark gate-skipped down: left alone, 4 hidden units cannot be divided among 3 experts
; expect: remark gate-skipped down: left alone, 9 hidden units cannot be copied from 4
; expect: remark gate-skipped down: left alone, `exclude` names it
; expect: remark gate-skipped other: left alone, a value between its products is used elsewhere
; expect: no remark gate-done
planish-ir 1
graph @"main"(v0 "x": f32[6,2]) {
  v1 = const f32[2,4] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1]
  v2 = const f32[4,2] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1]
  v3 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[6,4] @"up"
  v4 = unary{kind=tanh} v3 : f32[6,4]
  v5 = matmul{trans_a=false, trans_b=false} v4, v2 : f32[6,2] @"down"
  v6 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[6,4] @"up2"
  v7 = unary{kind=relu} v6 : f32[6,4]
  v8 = matmul{trans_a=false, trans_b=false} v7, v2 : f32[6,2] @"other"
  return v5 "y", v7 "h", v8 "z"
}
