; run: recognize
; expect: ops attention == 0
planish-ir 1
graph @"main"(v0 "q": f32[3,4], v1 "k": f32[5,4], v2 "v": f32[5,4]) {
  v3 = matmul{trans_a=false, trans_b=true} v0, v1 : f32[3,5]
  v4 = softmax{kind=softmax, axis=0} v3 : f32[3,5]
  v5 = matmul{trans_a=false, trans_b=false} v4, v2 : f32[3,4]
  return v5 "y"
}
