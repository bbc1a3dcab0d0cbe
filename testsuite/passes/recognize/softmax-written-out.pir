; run: recognize,eliminate-dead
; expect: ops softmax == 1
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[2,3,4]) {
  v1 = reduce{kind=max, axes=[1], keepdims=true, noop_empty=false} v0 : f32[2,1,4]
  v2 = binary{kind=sub} v0, v1 : f32[2,3,4]
  v3 = unary{kind=exp} v2 : f32[2,3,4]
  v4 = reduce{kind=sum, axes=[1], keepdims=true, noop_empty=false} v3 : f32[2,1,4]
  v5 = binary{kind=div} v3, v4 : f32[2,3,4]
  return v5 "y"
}
