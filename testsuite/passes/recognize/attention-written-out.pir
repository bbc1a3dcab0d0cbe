; run: recognize,eliminate-dead
; expect: ops attention == 1
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "q": f32[2,2,3,4], v1 "k": f32[2,2,4,5], v2 "v": f32[2,2,5,4], v3 "mask": f32[2,1,1,5]) {
  v4 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[2,2,3,5]
  v5 = const f32[] [2.0]
  v6 = binary{kind=div} v4, v5 : f32[2,2,3,5]
  v7 = binary{kind=add} v3, v6 : f32[2,2,3,5]
  v8 = softmax{kind=softmax, axis=3} v7 : f32[2,2,3,5]
  v9 = matmul{trans_a=false, trans_b=false} v8, v2 : f32[2,2,3,4]
  return v9 "y"
}
