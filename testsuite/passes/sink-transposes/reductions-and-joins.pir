; run: sink-transposes,eliminate-dead
; expect: ops transpose == 2
planish-ir 1
graph @"main"(v0 "x": f32[2,3,4], v1 "y": f32[2,3,4]) {
  v2 = transpose{perm=[2, 0, 1]} v0 : f32[4,2,3]
  v3 = reduce{kind=max, axes=[1], keepdims=false, noop_empty=false} v2 : f32[4,3]
  v4 = transpose{perm=[0, 2, 1]} v1 : f32[2,4,3]
  v5 = softmax{kind=softmax, axis=2} v4 : f32[2,4,3]
  v6 = concat{axis=1} v5, v5 : f32[2,8,3]
  v7 = reduce{kind=sum, axes=[2], keepdims=true, noop_empty=false} v6 : f32[2,8,1]
  return v3 "a", v7 "b"
}
