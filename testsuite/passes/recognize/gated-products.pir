; run: recognize,eliminate-dead
; expect: ops gated-matmul == 3
planish-ir 1
sym N 1..
graph @"main"(v0 "x": f32[2,8], v1 "y": f32[N,8], v2 "z": f32[6,8]) {
  v3 = const f32[] [0.5]
  v4 = const f32[] [0.0]
  v5 = const f32[8,3] splat 0x0000803f
  v6 = unary{kind=abs} v0 : f32[2,8]
  v7 = binary{kind=less} v6, v3 : bool[2,8]
  v8 = where v7, v4, v0 : f32[2,8]
  v9 = matmul{trans_a=false, trans_b=false} v8, v5 : f32[2,3]
  v10 = const f32[4,8] splat 0x00000040
  v11 = matmul{trans_a=false, trans_b=true} v8, v10 : f32[2,4]
  v12 = unary{kind=abs} v1 : f32[N,8]
  v13 = binary{kind=less} v12, v3 : bool[N,8]
  v14 = where v13, v4, v1 : f32[N,8]
  v15 = matmul{trans_a=false, trans_b=false} v14, v5 : f32[N,3]
  v16 = unary{kind=abs} v2 : f32[6,8]
  v17 = binary{kind=less} v16, v3 : bool[6,8]
  v18 = where v17, v4, v2 : f32[6,8]
  v19 = matmul{trans_a=false, trans_b=false} v18, v5 : f32[6,3]
  return v9 "a", v11 "b", v15 "c", v19 "d"
}
