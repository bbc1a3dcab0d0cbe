; run: insert-gates{kind=early-exit,head=nobody}
; run: insert-gates{kind=early-exit,head=wide}
; run: insert-gates{kind=early-exit,head=last}
; run: insert-gates{kind=early-exit,head=twice}
; expect: ops gate == 0
; expect: remark gate-skipped no output behind the first is called `nobody`
; expect: remark gate-skipped `wide` is f32[2,4], the first output f32[2,3]
; expect: remark gate-skipped the head needs all that the output needs
; expect: remark gate-skipped is needed elsewhere
planish-ir 1
graph @"main"(v0 "x": f32[2,4], v1 "w": f32[4,4], v2 "v": f32[4,3]) {
  v3 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[2,4] @"one"
  v4 = unary{kind=relu} v3 : f32[2,4] @"act1"
  v5 = matmul{trans_a=false, trans_b=false} v4, v1 : f32[2,4] @"two"
  v6 = matmul{trans_a=false, trans_b=false} v5, v2 : f32[2,3] @"three"
  v7 = unary{kind=exp} v6 : f32[2,3] @"last"
  v8 = matmul{trans_a=false, trans_b=false} v4, v2 : f32[2,3] @"head"
  return v6 "y", v5 "wide", v7 "last", v8 "twice"
}
