; run: grad{wrt=x|w,of=loss}
; expect: metric gradients == 2
; expect: ops matmul == 3
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "target": f32[2,4]) {
  v2 "w" = const f32[3,4] [0.1, 0.2, 0.3, -0.2, 0.3, -0.4, 0.1, 0.1, 0.5, 0.2, -0.1, 0.4]
  v3 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[2,4] @"fc"
  v4 = softmax{kind=log-softmax, axis=1} v3 : f32[2,4]
  v5 = binary{kind=mul} v4, v1 : f32[2,4]
  v6 = reduce{kind=sum, axes=none, keepdims=false, noop_empty=false} v5 : f32[]
  v7 = unary{kind=neg} v6 : f32[]
  return v4 "scores", v7 "loss"
}
